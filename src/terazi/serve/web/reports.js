// The reports that `terazi optimize` kept in the store; each is shown in a frame that can reach nothing.
import { ask, bytes, element } from "./app.js";

const $ = (id) => document.getElementById(id);
let shown = "";

function card(report) {
  const made = element("li", { className: report.name === shown ? "chosen" : "" },
    element("h3", { textContent: report.model }),
    element("div", { className: "badges" },
      element("span", { className: "badge", textContent: report.device }),
      element("span", { className: "badge", textContent: report.use_case })),
    element("p", {}, report.pick ? `Recommended: ${report.pick}, ${bytes(report.pick_size)}` : "Nothing keeps the limits.",
      report.pick && report.saved > 0 ? `, ${Math.round(report.saved * 100)} % smaller than 16 bit` : ""),
    element("p", { className: "hint", textContent: `${report.variants} variants measured · ${String(report.created).slice(0, 16).replace("T", " ")} UTC` }),
    element("div", { className: "toolbar" }, element("button", { type: "button", className: "main", textContent: "Show", ariaLabel: `Show the report on ${report.model} for ${report.device}` })));
  made.querySelector("button").addEventListener("click", () => show(report, made));
  return made;
}

function show(report, made) {
  shown = report.name;
  document.querySelectorAll("#report-list .chosen").forEach((other) => other.classList.remove("chosen"));
  made.classList.add("chosen");
  $("report").hidden = false;
  $("report-title").textContent = `${report.model} on ${report.device}`;
  $("report-link").href = report.url;
  const frame = document.querySelector("#report iframe");
  frame.src = report.url;
  $("report").scrollIntoView();
  frame.focus({ preventScroll: true });
}

export async function refresh() {
  const { reports } = await ask("/terazi/reports").then((response) => response.json());
  $("no-reports").hidden = reports.length > 0;
  $("report-list").replaceChildren(...reports.map(card));
  if (!reports.some((report) => report.name === shown)) $("report").hidden = true;
}

export function start() {}
