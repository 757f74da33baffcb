const root = document.documentElement, button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
}

function nameButton() {
  button.textContent = isDark() ? "Light colours" : "Dark colours";
}

button.hidden = false;
nameButton();
system.addEventListener("change", nameButton);
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameButton();
});

const quiet = { labelColor: "var(--ink-2)", titleColor: "var(--ink-2)", titleFontWeight: 600, labelFontSize: 11, titleFontSize: 12 };
const config = {
  background: null,
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: { ...quiet, gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)", labelOverlap: true },
  legend: { ...quiet, labelColor: "var(--ink)", labelFontSize: 12 },
};

const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);

// Names are text here: nothing of them is parsed. Over the area nearest to a point, the datum is that point, with its own words.
function tell(handler, event, item, value) {
  const words = value && (item?.datum?.tooltip ?? value);
  tip.hidden = !words || typeof words !== "object";
  if (tip.hidden) return;
  const rows = Object.entries(words).filter(([, said]) => said !== "").map(([name, said]) => {
    const row = document.createElement("div"), key = document.createElement("span"), text = document.createElement("b");
    key.textContent = `${name}: `;
    text.textContent = said;
    row.append(key, text);
    return row;
  });
  tip.replaceChildren(...rows);
  const { clientX = 0, clientY = 0 } = event.touches?.[0] ?? event;
  const box = tip.getBoundingClientRect(), width = root.clientWidth, height = root.clientHeight;
  tip.style.left = `${Math.max(4, Math.min(clientX + 14, width - box.width - 4))}px`;
  tip.style.top = `${clientY + 14 + box.height > height ? Math.max(4, clientY - box.height - 14) : clientY + 14}px`;
}

for (const holder of document.querySelectorAll("script[data-chart]")) {
  const place = document.getElementById(holder.dataset.chart);
  const details = place.parentElement.querySelector("details");
  try {
    const options = { mode: "vega-lite", actions: false, renderer: "svg", config, tooltip: tell };
    await vegaEmbed(place, JSON.parse(holder.textContent), options);
    if (details) details.open = false;
  } catch (error) {
    place.textContent = `The chart cannot be drawn: ${error.message}`;
  }
}
root.dataset.drawn = "yes";
