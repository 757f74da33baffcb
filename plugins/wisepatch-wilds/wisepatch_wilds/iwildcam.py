"""iWildCam2020-WILDS 2.0: the animal in a camera trap's picture, or none (Beery et al. 2020).

Out of distribution are the pictures of camera traps that training has not seen, as in WILDS (Koh et al. 2021, appendix). The
measure is the mean of F1 over the classes that a split has images of.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.image_files import FileSamples
from wisepatch_wilds.tables import SOURCE, all_there, known, need, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.samples import Transform

ARCHIVE = "https://worksheets.codalab.org/rest/bundles/0x6313da2b204647e79a14b468131fcd64/contents/blob/"
FOLDER = "iwildcam_v2.0"
LAYOUT = f"{FOLDER}/{{metadata.csv,train/*.jpg}}"
# In the order of the column `y`, in WiSE-FT's words. Four names stand twice: two labels, one English word.
SPECIES = (
    "empty", "white-lipped peccary", "central american agouti", "lowland paca", "cougar", "south american tapir",
    "collared peccary", "red brocket", "ocelot", "ruddy quail-dove", "south american coati", "nine-banded armadillo",
    "tayra", "common opossum", "crab-eating raccoon", "jaguar", "giant anteater", "great tinamou", "tapeti",
    "jaguarundi", "margay", "brown brocket", "gray four-eyed opossum", "wild goat", "cattle cow bull", "sheep", "wolf",
    "scrub hare", "olive baboon", "common genet", "cape bushbuck", "slender mongoose", "african bush elephant",
    "gambian pouched rat", "steenbok", "striped hyena", "impala", "spotted hyena", "caracal", "wild horse", "lion",
    "common eland", "waterbuck", "common warthog", "leopard", "white-tailed mongoose", "black-backed jackal",
    "african buffalo", "plains zebra", "giraffe", "hartebeest", "vervet monkey", "günther's dik-dik", "bushpig",
    "grant's gazelle", "thomson's gazelle", "common ostrich", "aardvark", "cheetah", "white-bellied bustard",
    "wildcat", "east african oryx", "buff-crested bustard", "kori bustard", "black-bellied bustard", "great argus",
    "leopard cat", "banded palm civet", "indian muntjac", "wild boar", "sun bear", "sambar deer", "malayan porcupine",
    "asian golden cat", "tiger", "three-striped ground squirrel", "common emerald dove", "cape genet",
    "crested porcupine", "african wild dog", "rock hyrax", "dog", "unknown bird", "unknown bat", "amazonian motmot",
    "black agouti", "geotrygon", "white-nosed coati", "northern tamandua", "opossum", "crested guan", "hummingbird",
    "plain parakeet", "dromedary", "bat-eared fox", "vulturine guineafowl", "zebra", "aardwolf", "serval",
    "greater kudu", "hippopotamus", "spotted thick-knee", "masked palm civet", "marbled cat", "dhole",
    "asian water monitor", "yellow-throated marten", "banded linsang", "crested partridge", "salvadori's pheasant",
    "bronze-tailed peacock-pheasant", "sunda pangolin", "sumatran serow", "macaque", "handsome spurfowl",
    "l'hoest's monkey", "black-fronted duiker", "african brush-tailed porcupine", "chimpanzee", "blue monkey",
    "mountain squirrel", "western yellow wagtail", "yellow-whiskered greenbul", "little greenbul",
    "charming thicket rat", "forest giant squirrel", "boehm's bush squirrel", "yellow-backed duiker",
    "common rufous-nosed rat", "moustached grass warbler", "peters's striped mouse", "african wading rat",
    "stella wood mouse", "servaline genet", "side-striped jackal", "african pygmy mouse", "ross's turaco",
    "tambourine dove", "tullberg's soft-furred mouse", "big-eared swamp rat", "egyptian goose", "link rat",
    "grey-winged francolin", "olive thrush", "brocket deer", "gray fox", "ocellated turkey", "great curassow",
    "lowland paca", "baird's tapir", "raccoon", "white-tailed deer", "grey-headed dove",
    "central american red brocket", "striped hog-nosed skunk", "yucatan brown brocket", "plain chachalaca",
    "thomas's langur", "sunda clouded leopard", "sumatran hog badger", "mouse-deer", "sumatran treepie",
    "rufous-vented niltava", "silver-eared mesia", "red-billed partridge", "gallopheasants", "javan whistling thrush",
    "crestless fireback", "crested serpent eagle", "blue whistling thrush", "collared mongoose", "crab-eating fox",
    "motorcycle", "deer mouse", "jaguarundi", "bare-throated tiger heron", "blue ground dove", "red squirrel",
    "unknown bird", "grey-cowled wood rail", "unknown dove", "central american red brocket",
)  # fmt: skip
TEMPLATES = ("a photo of {}.", "{} in the wild.")
# Our split: the word in the column `split`.
IN_DISTRIBUTION = {"train": "train", "val": "id_val", "test": "id_test"}
OUT_OF_DISTRIBUTION = {"val": "val", "test": "test"}
COUNTS = {"train": 129809, "id_val": 7314, "id_test": 8154, "val": 14961, "test": 42791}


def datasets() -> list[Dataset]:
    """The task iWildCam with its training images, and iWildCamOOD, with the same classes, prompts and thus the same head."""
    return [
        Dataset(
            name, SPECIES, partial(_open, name, words), TEMPLATES, splits=tuple(words), metric="macro_f1_present",
            extra_metrics=("top1",), family="WILDS", source=SOURCE, aliases=aliases, layouts=(LAYOUT,),
            counts={split: COUNTS[word] for split, word in words.items()},
            licence="CDLA-Permissive-1.0", gigabytes=12.0,
        )
        for name, words, aliases in (
            ("iWildCam", IN_DISTRIBUTION, ("iWildCamID",)),
            ("iWildCamOOD", OUT_OF_DISTRIBUTION, ()),
        )
    ]  # fmt: skip


def _open(task: str, words: dict[str, str], split: str, root: Path, transform: Transform | None = None) -> FileSamples:
    """The images of a split in the order of the metadata; those of all splits lie in ``train/``."""
    path, images = root / FOLDER / "metadata.csv", root / FOLDER / "train"
    need(task, root, LAYOUT, ARCHIVE, [path, images])
    table = read_table(path, ["split", "filename", "y"], ARCHIVE)
    known(path, table["split"], COUNTS, ARCHIVE)
    known(path, table["y"], map(str, range(len(SPECIES))), ARCHIVE)
    chosen = table[table["split"] == words[split]]
    names = list(chosen["filename"])
    all_there(task, split, images, names, ARCHIVE)
    return FileSamples(
        [(f"{images}/{name}", int(label)) for name, label in zip(names, chosen["y"], strict=True)], transform
    )
