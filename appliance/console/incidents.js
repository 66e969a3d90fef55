// @ts-check
/** What went wrong: a line for each incident, and all that was kept of it behind that line. */

import { get } from "./api.js";
import { byId, make, rebuild, sign, write } from "./dom.js";
import { capital, clock, isNumber, length, number, size, text, words } from "./format.js";

const place = byId("incidents", HTMLElement);

/** @param {import("./model.js").Model} model */
export function showIncidents({ incidents }) {
  write(byId("incidents-aside", HTMLElement), (incidents?.length ?? 0) > 1 ? `the last ${incidents?.length}, newest first` : "");
  const open = new Set([...place.querySelectorAll("details[open]")].map((one) => one.id));
  rebuild(place, incidents?.map((one) => text(one.id)) ?? null, () => {
    if (incidents === null) return [make("p", { class: "none" }, "Not known yet.")];
    if (!incidents.length) return [make("p", { class: "none" }, "None: the engine has not ended or failed unasked.")];
    return incidents.map((one) => row(one, open.has(rowId(one))));
  });
}

/** @param {any} incident */
const rowId = (incident) => `incident-${text(incident.id)}`;

/** @param {any} incident @param {boolean} isOpen */
function row(incident, isOpen) {
  const body = make("div", { class: "incident-body" });
  const details = make("details", { id: rowId(incident) },
    make("summary", {}, sign("open"),
      make("span", { class: "what" }, capital(words(incident.code)) || "Unknown"),
      make("span", { class: "when" }, clock(incident.at) ?? "")),
    body);
  fill(body, incident);
  details.addEventListener("toggle", () => {
    if (details.hasAttribute("open")) void whole(body, incident);
  }, { once: true });
  details.toggleAttribute("open", isOpen);
  // What happened stands under a shut line too: the eye should not have to open it.
  return make("div", { class: "incident" }, details, make("p", { class: "brief", "aria-hidden": "true" }, capital(text(incident.what))));
}

/** Fetch what a list leaves out. @param {HTMLElement} body @param {any} incident */
async function whole(body, incident) {
  try {
    fill(body, await get(`/incidents/${encodeURIComponent(text(incident.id))}`));
    // a log's end says why
    body.querySelectorAll("pre").forEach((lines) => lines.scrollTo(0, lines.scrollHeight));
  } catch {
    // what the list said of it stands there
  }
}

/** @param {HTMLElement} body @param {any} incident */
function fill(body, incident) {
  const lines = Array.isArray(incident.lines) ? incident.lines.map(String) : [];
  const hint = capital(text(incident.hint));
  body.replaceChildren(
    make("p", {}, capital(text(incident.what)) || "Nothing more is known of it."),
    ...(hint ? [make("p", { class: "hint" }, make("span", {}, "What to do"), " ", make("span", {}, hint))] : []),
    make("dl", { class: "facts" }, ...facts(incident).map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
    ...(lines.length ? [make("pre", { tabindex: "0", role: "region", "aria-label": "Its last lines" }, lines.join("\n"))] : []),
  );
}

/** @param {any} incident @returns {[string, string][]} */
function facts(incident) {
  const phase = incident.phase === incident.state ? "" : text(incident.phase);
  const running = number(incident.requests_running);
  /** @type {[string, string | null][]} */
  const all = [
    ["Then", text(incident.next) || null],
    ["It was", capital(words(incident.state)) + (phase ? `, ${phase}` : "") || null],
    ["Exit", text(incident.exit) || null],
    ["Up", isNumber(incident.uptime_s) ? length(incident.uptime_s) : null],
    ["Start", isNumber(incident.spawn) ? `no. ${incident.spawn}` : null],
    ["Requests running", running],
    ["Memory available", size(incident.memory?.before?.MemAvailable)],
  ];
  return all.flatMap(([name, value]) => (value === null ? [] : [[name, value]]));
}
