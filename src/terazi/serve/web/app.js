// The page as a whole: which view is shown, the password, asking the server.
import * as chat from "./chat.js";
import * as models from "./models.js";
import * as reports from "./reports.js";

const views = { chat, models, reports };
const key = document.getElementById("key");

/** Ask the server; an answer that is no success becomes an Error with the server's own sentence. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const headers = { "Content-Type": "application/json", ...(key.value ? { Authorization: `Bearer ${key.value}` } : {}) };
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The server does not answer. Is terazi serve still running?");
  }
  if (response.status === 401) document.getElementById("key-field").hidden = false;
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.error?.message ?? problem.error ?? `The server answered with status ${response.status}.`);
  }
  return response;
}

/** Yield the lines of a streamed answer as they come. */
export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    yield* whole;
  }
  if (rest) yield rest;
}

/** Make an element; text never becomes markup. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter(Boolean));
  return made;
}

/** Bytes in decimal units with three digits: 98.4 MB. */
export function bytes(value) {
  let unit = 0;
  while (unit < 4 && Number(value.toPrecision(3)) >= 1000) { value /= 1000; unit += 1; }
  return `${unit ? Number(value.toPrecision(3)) : Math.round(value)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}

/** Say what went wrong, or nothing any more. */
export function complain(error) {
  const box = document.getElementById("problem");
  box.textContent = error?.message ?? "";
  box.hidden = !error;
}

async function show() {
  const name = location.hash.slice(1) in views ? location.hash.slice(1) : "chat";
  for (const other of Object.keys(views)) document.getElementById(other).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name === "chat" ? "Terazi" : `Terazi ${name}`;
  await refresh(name);
}

async function refresh(name) {
  try {
    await views[name].refresh();
    complain();
  } catch (error) {
    complain(error);
  }
}

key.value = sessionStorage.getItem("key") ?? "";
document.getElementById("key-field").hidden = !key.value;
key.addEventListener("change", () => { sessionStorage.setItem("key", key.value); show(); });
window.addEventListener("hashchange", show);
for (const view of Object.values(views)) view.start();
show();
