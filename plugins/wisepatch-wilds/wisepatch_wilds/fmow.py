"""FMoW-WILDS 1.1: what a building or a piece of land is used for, from satellite images (Christie et al. 2018).

In distribution are the images from before 2013, out of distribution those from 2013 to 2015 (``val``) and from 2016 on
(``test``), as in WILDS (Koh et al. 2021, appendix). Accuracy is measured by region besides: WILDS ranks by the lowest.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.samples import Annotations
from wisepatch.errors import DataError
from wisepatch_wilds.tables import SOURCE, all_there, known, need, read_table

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from wisepatch.datasets.samples import Transform

ARCHIVE = "https://worksheets.codalab.org/rest/bundles/0xaec91eb7c9d548ebb15e1b5e60f966ab/contents/blob/"
FOLDER = "fmow_v1.1"
LAYOUT = f"{FOLDER}/{{rgb_metadata.csv,country_code_mapping.csv,images/rgb_img_*.png}}"
CATEGORIES = (
    "airport", "airport_hangar", "airport_terminal", "amusement_park", "aquaculture", "archaeological_site", "barn",
    "border_checkpoint", "burial_site", "car_dealership", "construction_site", "crop_field", "dam", "debris_or_rubble",
    "educational_institution", "electric_substation", "factory_or_powerplant", "fire_station", "flooded_road", "fountain",
    "gas_station", "golf_course", "ground_transportation_station", "helipad", "hospital", "impoverished_settlement",
    "interchange", "lake_or_pond", "lighthouse", "military_facility", "multi-unit_residential", "nuclear_powerplant",
    "office_building", "oil_or_gas_facility", "park", "parking_lot_or_garage", "place_of_worship", "police_station", "port",
    "prison", "race_track", "railway_bridge", "recreational_facility", "road_bridge", "runway", "shipyard", "shopping_mall",
    "single-unit_residential", "smokestack", "solar_farm", "space_facility", "stadium", "storage_tank", "surface_mine",
    "swimming_pool", "toll_booth", "tower", "tunnel_opening", "waste_disposal", "water_treatment_facility", "wind_farm", "zoo",
)  # fmt: skip
REGIONS = ("Africa", "Americas", "Asia", "Europe", "Oceania")
TEMPLATES = (
    *(f"{view} photo of {article} {{}}." for article in ("a", "{article}") for view in ("satellite", "aerial")),
    *(
        f"{view} photo of a {{}} in {region}."
        for region in ("asia", "africa", "the americas", "europe", "oceania")
        for view in ("satellite", "aerial")
    ),
    "a photo of a {}.",
    "{}.",
)
# Our split: the word in the column `split`, and the years. The sequestered images (`seq`) are in none.
IN_DISTRIBUTION = {"train": ("train", 0, 2013), "val": ("val", 0, 2013), "test": ("test", 0, 2013)}
OUT_OF_DISTRIBUTION = {"val": ("val", 2013, 2016), "test": ("test", 2016, 9999)}


def datasets() -> list[Dataset]:
    """FMoW with its training images, and FMoWOOD, which has the same classes and prompts and thus the same head."""
    return [
        Dataset(
            name, tuple(category.replace("_", " ") for category in CATEGORIES), partial(_open, name, cuts), TEMPLATES,
            splits=tuple(cuts), extra_metrics=("worst_group",), family="WILDS", source=SOURCE, aliases=aliases, layouts=(LAYOUT,),
            licence="FMoW Challenge Public License", gigabytes=53.9, counts=counts,
        )
        for name, cuts, aliases, counts in (
            ("FMoW", IN_DISTRIBUTION, ("FMoWID",), {"train": 76863, "val": 11483, "test": 11327}),
            ("FMoWOOD", OUT_OF_DISTRIBUTION, (), {"val": 19915, "test": 22108}),
        )
    ]  # fmt: skip


def _open(
    task: str, cuts: dict[str, tuple[str, int, int]], split: str, root: Path, transform: Transform | None = None
) -> FileSamples:
    """The images of a split in the order of the metadata; image i of ``images/`` is row i of all rows."""
    folder, images = root / FOLDER, root / FOLDER / "images"
    path, countries = folder / "rgb_metadata.csv", folder / "country_code_mapping.csv"
    need(task, root, LAYOUT, ARCHIVE, [path, countries, images])
    table = read_table(path, ["split", "category", "country_code", "timestamp"], ARCHIVE)
    known(path, table["split"], ("train", "val", "test", "seq"), ARCHIVE)
    known(path, table["category"], CATEGORIES, ARCHIVE)
    word, first, end = cuts[split]
    years = _years(path, table["timestamp"])
    chosen = table[(table["split"] == word) & (years >= first) & (years < end)]
    names = [f"rgb_img_{row}.png" for row in chosen.index]
    all_there(task, split, images, names, ARCHIVE)
    index = {category: number for number, category in enumerate(CATEGORIES)}
    files = [(f"{images}/{name}", index[category]) for name, category in zip(names, chosen["category"], strict=True)]
    regions = _regions(countries)
    groups = [regions.get(code, -1) for code in chosen["country_code"]]
    return FileSamples(files, transform, Annotations(groups=groups, group_names=REGIONS))


def _years(path: Path, timestamps: Any) -> Any:
    """The year of each timestamp in UTC."""
    import pandas as pd

    dates = pd.to_datetime(timestamps, utc=True, format="ISO8601", errors="coerce")
    if dates.isna().any():
        row = int(dates.isna().to_numpy().argmax())
        raise DataError(
            f"{path}, row {row + 1}: the timestamp {timestamps.iloc[row]!r} is no date",
            f"take the file from {ARCHIVE} again",
        )
    return dates.dt.year


def _regions(countries: Path) -> dict[str, int]:
    """The index of the region of each country code.

    WILDS calls the region of a code that is not in the file "Other", and leaves it out of the worst region: such a code,
    and one without a region, is not among those returned.
    """
    table = read_table(countries, ["alpha-3", "region"], ARCHIVE)
    known(countries, table["region"], (*REGIONS, ""), ARCHIVE)
    return {
        code: REGIONS.index(region) for code, region in zip(table["alpha-3"], table["region"], strict=True) if region
    }
