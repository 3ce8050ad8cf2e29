// Chatting with one model, or asking two the same.
import { ask, bytes, complain, element, lines } from "./app.js";

const $ = (id) => document.getElementById(id);
const COMPARING = { temperature: 0, seed: 1, cache_prompt: false };
const panes = [];
let models = [], running = null, wanted = "";

class Pane {
  constructor() {
    const node = $("pane").content.cloneNode(true);
    this.section = node.querySelector("section");
    this.select = node.querySelector("select");
    this.facts = node.querySelector(".facts");
    this.log = node.querySelector(".log");
    this.messages = [];
    this.select.addEventListener("change", () => this.clear());
    $("panes").append(node);
  }
  offer() {
    const chosen = this.select.value, names = models.map((model) => model.name);
    this.select.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(chosen)) this.select.value = chosen;
    else if (panes.indexOf(this) === 1 && names.length > 1) this.select.selectedIndex = names[0] === panes[0].select.value ? 1 : 0;
    this.log.dataset.empty = names.length ? "Ask something. Nothing leaves this server." : "No models yet: get one under Models.";
  }
  clear() { this.messages = []; this.box = null; this.log.replaceChildren(); this.facts.textContent = ""; $("agreement").textContent = ""; }
  say(role, text = "") {
    const box = element("div", { className: `message ${role}`, textContent: text });
    this.log.append(box);
    this.log.scrollTop = this.log.scrollHeight;
    return box;
  }
  ask(prompt) {
    this.messages.push({ role: "user", content: prompt });
    this.say("user", prompt);
    this.box = this.say("assistant");
  }
  /** Stream the answer to the last question; returns its text, "" when there is none. */
  async answer(signal) {
    if (signal.aborted) return "";
    const started = performance.now();
    let text = "", tokens = 0, first = 0;
    try {
      const response = await ask("/v1/chat/completions", { method: "POST", body: this.request(), signal });
      for await (const line of lines(response)) {
        if (!line.startsWith("data: {")) continue;
        const event = JSON.parse(line.slice(6));
        if (event.error) throw new Error(event.error.message);
        const delta = event.choices?.[0]?.delta ?? {};
        if (delta.content || delta.reasoning_content) {
          first ||= performance.now();
          tokens += 1;
          text += delta.content ?? "";
          this.box.classList.toggle("thinking", !text);
          this.box.textContent = text || delta.reasoning_content;
          this.log.scrollTop = this.log.scrollHeight;
          const seconds = (performance.now() - first) / 1000;
          if (seconds > 0.2) this.facts.textContent = `${((tokens - 1) / seconds).toFixed(1)} tokens/s`;
        }
        if (event.timings) await this.report(event.timings, first - started);
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        this.box.classList.add("failed");
        this.box.textContent = text ? `${text}\n\n${error.message}` : error.message;
      }
    }
    if (text) this.messages.push({ role: "assistant", content: text });
    else this.messages.pop();
    return text;
  }
  request() {
    const system = $("system").value.trim(), seed = $("seed").value;
    return {
      model: this.select.value, stream: true, stream_options: { include_usage: true }, max_tokens: Number($("longest").value),
      temperature: Number($("temperature").value), ...(seed ? { seed: Number(seed) } : {}),
      ...(panes.length === 2 ? COMPARING : {}),
      messages: [...(system ? [{ role: "system", content: system }] : []), ...this.messages],
    };
  }
  async report(timings, wait) {
    const speed = (timings.predicted_n * 1000) / timings.predicted_ms;
    const parts = [`${speed.toFixed(1)} tokens/s`, `first after ${(wait / 1000).toFixed(2)} s`, `${timings.predicted_n} tokens`];
    const loaded = await ask("/api/ps").then((response) => response.json()).catch(() => ({}));
    const digest = models.find((model) => model.name === this.select.value)?.digest;
    const mine = loaded.models?.find((model) => model.digest === digest);
    if (mine) parts.push(`${bytes(mine.size)} of memory`);
    this.facts.textContent = parts.join(" · ");
  }
  /** Mark what comes after the words that both answers begin with. */
  mark(words) {
    const text = this.box.textContent, pieces = text.matchAll(/\S+\s*/g);
    let end = text.search(/\S/);
    for (let number = 0; number < words; number += 1) end += pieces.next().value[0].length;
    if (end < text.length) this.box.replaceChildren(text.slice(0, end), element("mark", { textContent: text.slice(end) }));
  }
}

/** How many words two answers begin with in common, and how many the longer one has. */
function agreement(texts) {
  const [a, b] = texts.map((text) => text.trim().split(/\s+/));
  let same = 0;
  while (same < a.length && same < b.length && a[same] === b[same]) same += 1;
  return { same, longest: Math.max(a.length, b.length) };
}

function judge(texts) {
  const { same, longest } = agreement(texts);
  if (same === longest) { $("agreement").textContent = `Agreement 100 %: both answers are the same (${longest} words).`; return; }
  panes.forEach((pane) => pane.mark(same));
  $("agreement").textContent = `Agreement ${Math.floor((same / longest) * 100)} %: ${same} of ${longest} words until the first difference.`;
}

async function send(event) {
  event?.preventDefault();
  if (running) return running.abort();
  const prompt = $("prompt").value.trim();
  if (!prompt || !models.length) return;
  $("prompt").value = "";
  grow();
  running = new AbortController();
  $("send").textContent = "Stop";
  $("agreement").textContent = "";
  panes.forEach((pane) => pane.ask(prompt));
  const texts = [];
  if ($("in-turn").checked) for (const pane of panes) texts.push(await pane.answer(running.signal));
  else texts.push(...(await Promise.all(panes.map((pane) => pane.answer(running.signal)))));
  if (texts.length === 2 && texts[0] && texts[1] && !running.signal.aborted) judge(texts);
  running = null;
  $("send").textContent = "Send";
  $("prompt").focus();
}

function grow() {
  const prompt = $("prompt");
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

function compare(on) {
  running?.abort();
  if (on && panes.length === 1) { panes.push(new Pane()); panes[1].offer(); }
  if (!on && panes.length === 2) panes.pop().section.remove();
  panes[0].clear();
  $("panes").classList.toggle("two", on);
  $("comparison").hidden = $("turns").hidden = !on;
  for (const id of ["temperature", "seed"]) {
    const field = $(id);
    if (on) field.dataset.own = field.value;
    field.value = on ? COMPARING[id] : field.dataset.own;
    field.disabled = on;
  }
}

/** Go to the chat with a model; `refresh` selects it once the view is there. */
export function open(name) {
  wanted = name;
  location.hash = "#chat";
}

export async function refresh() {
  const known = await ask("/terazi/models").then((response) => response.json());
  models = known.models.filter((model) => model.served && !model.embedding);
  panes.forEach((pane) => pane.offer());
  if (!wanted) return;
  if (panes[0].select.value !== wanted) { panes[0].select.value = wanted; panes[0].clear(); }
  wanted = "";
  $("prompt").focus();
}

export function start() {
  panes.push(new Pane());
  $("form").addEventListener("submit", send);
  $("prompt").addEventListener("input", grow);
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && running) running.abort(); });
  $("clear").addEventListener("click", () => { running?.abort(); panes.forEach((pane) => pane.clear()); complain(); $("prompt").focus(); });
  $("compare").addEventListener("change", (event) => compare(event.target.checked));
}
