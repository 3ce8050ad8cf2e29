// The registry: what is in memory and in the store, getting models and removing them.
import { ask, bytes, complain, element, lines } from "./app.js";
import { open } from "./chat.js";

const $ = (id) => document.getElementById(id);
const EVERY = 3000;
let known = { models: [], damaged: {}, catalog: [] }, loaded = [], pulling = null, unwanted = "";

const day = (seconds) => new Date(seconds * 1000).toLocaleDateString("en-CA");
const big = (number) => (number >= 1e9 ? `${Number((number / 1e9).toPrecision(3))} B` : `${Number((number / 1e6).toPrecision(3))} M`);
const badge = (text, kind = "", title = "") => element("span", { className: `badge ${kind}`, textContent: text, title });
const button = (text, action, more = {}) => {
  const made = element("button", { type: "button", textContent: text, ...more });
  made.addEventListener("click", action);
  return made;
};

function left(model) {
  const seconds = (new Date(model.expires_at) - Date.now()) / 1000;
  if (seconds > 86400) return "stays";
  return seconds > 90 ? `leaves after ${Math.round(seconds / 60)} min idle` : `leaves after ${Math.max(0, Math.round(seconds))} s idle`;
}

function runningCard(model) {
  return element("li", {},
    element("h3", { textContent: model.name }),
    element("div", { className: "badges" },
      badge(`${bytes(model.size)} of memory`, "loaded"), badge(`${model.context_length} tokens of context`), badge(left(model))),
    element("div", { className: "toolbar" },
      button("Chat", () => open(model.name), { ariaLabel: `Chat with ${model.name}` }),
      button("Unload", () => act(() => unload(model.name)), { ariaLabel: `Unload ${model.name}` })));
}

function storedCard(model) {
  const running = loaded.find((other) => other.digest === model.digest);
  const type = model.recipe ?? model.type;
  const facts = {
    "Architecture": model.architecture && `${model.architecture}, ${big(model.parameters)} weights`,
    "Bits per weight": model.bits_per_weight?.toFixed(2),
    "Context": model.context ? `${model.context} tokens` : "",
    "Licence": `${model.license}: ${model.license_note}`,
    "Source": model.source,
    "Note": model.notes,
    "Digest": `sha256:${model.digest}`,
    "Files": model.files.map((file) => `${file.name} (${bytes(file.size)}${file.role === "weights" ? "" : `, ${file.role}`})`).join(", "),
  };
  const rows = Object.entries(facts).filter(([, value]) => value);
  return element("li", { id: `model-${model.name}` },
    element("h3", { textContent: model.name }),
    element("div", { className: "badges" },
      badge(model.format.toUpperCase()), type && badge(type), badge(bytes(model.size)),
      badge(model.license, model.commercial, `commercial use: ${model.commercial}`), model.embedding && badge("embeddings"),
      running && badge(`in memory: ${bytes(running.size)}`, "loaded")),
    element("p", { className: "hint" }, `Added ${day(model.added)}`,
      model.made_from && " · made from ", model.made_from && jump(model.made_from)),
    model.variants.length ? element("p", { className: "hint" }, "Variants: ",
      ...model.variants.flatMap((name, number) => [number ? ", " : null, jump(name)])) : null,
    model.problem && element("p", { className: "failed notice", textContent: model.problem }),
    element("details", {}, element("summary", { textContent: "Details" }),
      element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]))),
    element("div", { className: "toolbar" },
      model.served && !model.embedding ? button("Chat", () => open(model.name), { className: "main", ariaLabel: `Chat with ${model.name}` }) : null,
      known.read_only ? null : button("Remove", () => remove(model), { className: "danger", ariaLabel: `Remove ${model.name}` }),
      model.served ? null : element("span", { className: "hint", textContent: "not served in this format" })));
}

function damagedCard([name, problem]) {
  return element("li", {},
    element("h3", { textContent: name }),
    element("p", { className: "failed notice", textContent: `Damaged: ${problem}. Pull it again.` }));
}

/** A link to another card; plain text when that model is not in the store. */
function jump(name) {
  if (!known.models.some((model) => model.name === name)) return name;
  return button(name, () => {
    ["search", "format", "licence"].forEach((id) => { $(id).value = ""; });
    draw();
    const card = document.getElementById(`model-${name}`);
    card.classList.add("chosen");
    card.scrollIntoView({ block: "center" });
    card.querySelector("summary").focus();
  }, { className: "linklike" });
}

function matches(model) {
  const text = [model.name, model.format, model.recipe, model.type, model.license, model.source, model.architecture, model.made_from].join(" ").toLowerCase();
  return $("search").value.toLowerCase().split(/\s+/).every((word) => text.includes(word))
    && (!$("format").value || model.format === $("format").value)
    && (!$("licence").value || ["yes", "conditions"].includes(model.commercial));
}

/** Replace a list's cards, keeping what is open and what has the focus. */
function fill(list, cards) {
  const opened = new Set([...list.querySelectorAll("details[open]")].map((node) => node.closest("li").id));
  const focused = list.contains(document.activeElement) ? document.activeElement.ariaLabel : null;
  list.replaceChildren(...cards);
  for (const card of cards) if (opened.has(card.id) && card.id) card.querySelector("details").open = true;
  if (focused) [...list.querySelectorAll("button")].find((node) => node.ariaLabel === focused)?.focus();
}

function draw() {
  const shown = known.models.filter(matches);
  $("stored").textContent = shown.length === known.models.length ? `${shown.length}` : `${shown.length} of ${known.models.length}`;
  const nothing = known.models.length ? "No model matches." : "Nothing yet: pull smollm2:135m to begin.";
  const cards = shown.length ? shown.map(storedCard) : [element("li", { className: "hint", textContent: nothing })];
  fill($("stored-models"), [...cards, ...Object.entries(known.damaged).map(damagedCard)]);
}

function drawLoaded() {
  const taken = loaded.reduce((sum, model) => sum + model.size, 0);
  $("budget").textContent = `${loaded.length ? bytes(taken) : "nothing"} of ${bytes(known.memory_budget ?? 0)}`;
  fill($("loaded"), loaded.map(runningCard));
}

async function look() {
  const before = loaded.map((model) => model.digest + model.size).join();
  loaded = (await ask("/api/ps").then((response) => response.json())).models;
  drawLoaded();
  return before !== loaded.map((model) => model.digest + model.size).join();
}

async function act(work) {
  try {
    complain();
    await work();
    await refresh();
  } catch (error) {
    complain(error);
  }
}

function unload(name) {
  return ask("/api/generate", { method: "POST", body: { model: name, keep_alive: 0 } });
}

function remove(model) {
  const dialog = $("confirm");
  unwanted = model.name;
  $("question").textContent = `Remove ${model.name} (${bytes(model.size)}) from the store? Content that other models share stays.`;
  dialog.returnValue = "no";
  dialog.showModal();
}

function answered() {
  const yes = $("confirm").returnValue === "yes";
  $("confirm").returnValue = "no"; // the event of an earlier answer may come late
  if (yes) act(() => ask("/api/delete", { method: "DELETE", body: { model: unwanted } }));
}

async function pull(event) {
  event.preventDefault();
  if (pulling) return pulling.abort();
  const name = $("pull-name").value.trim();
  if (!name) return $("pull-name").focus();
  pulling = new AbortController();
  const [bar, text] = $("pulling").children;
  $("pull").textContent = "Stop";
  $("pulling").hidden = false;
  bar.hidden = false;
  text.textContent = `Looking for ${name}`;
  bar.removeAttribute("value");
  try {
    const response = await ask("/api/pull", { method: "POST", body: { model: name }, signal: pulling.signal });
    for await (const line of lines(response)) {
      const step = JSON.parse(line);
      if (step.error) throw new Error(step.error);
      if (step.total) { bar.max = step.total; bar.value = step.completed; }
      text.textContent = step.total ? `${step.status}: ${bytes(step.completed)} of ${bytes(step.total)}` : step.status;
    }
    text.textContent = `${name} is here.`;
    $("pull-name").value = "";
  } catch (error) {
    const stopped = error.name === "AbortError";
    text.textContent = stopped ? "Stopped. What has come is kept: pull again to go on." : error.message;
  }
  bar.hidden = true;
  pulling = null;
  $("pull").textContent = "Pull";
  await act(() => {});
}

export async function refresh() {
  known = await ask("/terazi/models").then((response) => response.json());
  const formats = [...new Set(known.models.map((model) => model.format))].sort();
  const chosen = $("format").value;
  $("format").replaceChildren(new Option("every format", ""), ...formats.map((name) => new Option(name, name)));
  $("format").value = formats.includes(chosen) ? chosen : "";
  $("catalog").replaceChildren(...known.catalog.map((entry) => element("option", { value: entry.name, label: `${entry.title}, ${entry.license}` })));
  $("getting").hidden = known.read_only;
  await look();
  draw();
}

async function tick() {
  if (!$("models").hidden && !document.hidden) {
    try {
      if (await look()) draw();
    } catch (error) {
      complain(error);
    }
  }
  setTimeout(tick, EVERY);
}

export function start() {
  $("pull-form").addEventListener("submit", pull);
  $("confirm").addEventListener("close", answered);
  for (const id of ["search", "format", "licence"]) $(id).addEventListener("input", draw);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && pulling && !$("confirm").open) pulling.abort(); });
  setTimeout(tick, EVERY);
}
