// The admin page: shows what the stream of events at api/v1/events says, every second. All texts are
// set as text, so nothing of a peer is read as HTML.
"use strict";

const at = (id) => document.getElementById(id);

function item(parts) {
  const li = document.createElement("li");
  for (const [text, look] of parts) {
    const span = document.createElement("span");
    span.textContent = text;
    if (look) span.className = look;
    li.append(span, " ");
  }
  return li;
}

const time = (text) => text.slice(11, 19);

function row(link) {
  const tr = document.createElement("tr");
  const days = link.certificate_days_left;
  for (const [text, look] of [
    [link.peer], [link.state, link.state === "up" ? "good" : "quiet"], [link.since.replace("T", " ").replace("Z", "")],
    [link.address], [link.path], [`${link.rtt_ms.toFixed(1)} ms`], [`${link.loss_percent.toFixed(2)} %`],
    [link.calls_in_flight], [`${days} days`, days < 7 ? "bad" : ""],
  ]) {
    const td = document.createElement("td");
    td.textContent = text;
    if (look) td.className = look;
    tr.append(td);
  }
  return tr;
}

// One line for each list of numbers; missing ones are left out.
function chart(id, lists) {
  const highest = Math.max(1e-9, ...lists.flat().filter((value) => value !== null));
  const path = (values) => {
    const from = 60 - values.length;
    let draws = "";
    let isDown = false;
    values.forEach((value, number) => {
      if (value === null) { isDown = false; return; }
      const x = ((from + number) * 300) / 59;
      const y = 77 - (74 * value) / highest;
      draws += `${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      isDown = true;
    });
    const drawn = document.createElementNS("http://www.w3.org/2000/svg", "path");
    drawn.setAttribute("d", draws);
    return drawn;
  };
  at(id).replaceChildren(...lists.map(path));
  return highest < 1e-6 ? 0 : highest;
}

const number = (value, digits) => (value === null || value === undefined ? "-" : value.toFixed(digits));

function charts(seconds) {
  const of = (key) => seconds.map((second) => second[key]);
  const last = seconds[seconds.length - 1] ?? {};
  const values = (now, highest, digits) => `${now}, at most ${number(highest, digits)}`;
  const calls = chart("c-calls", [of("per_second")]);
  at("v-calls").textContent = values(number(last.per_second, 1), calls, 1);
  const failed = chart("c-failed", [of("failed_per_second")]);
  at("v-failed").textContent = values(number(last.failed_per_second, 1), failed, 1);
  const times = chart("c-times", [of("p50_ms"), of("p99_ms")]);
  at("v-times").textContent = values(`${number(last.p50_ms, 2)} / ${number(last.p99_ms, 2)}`, times, 2);
}

function list(id, items) {
  const section = at(id);
  section.hidden = items.length === 0;
  section.querySelector("ul").replaceChildren(...items);
}

function show({ status, seconds }) {
  document.title = `${status.role} ${status.name} - dialback`;
  at("role").textContent = status.role;
  at("name").textContent = status.name;
  at("summary").textContent =
    `version ${status.version}, since ${status.started_at}; ${status.calls_in_flight} calls in flight; certificate: ${status.certificate.days_left} days left`;
  const { ready, reasons, services } = status.readiness;
  const state = at("state");
  const words = status.state === "draining" ? "draining" : ready ? "ready" : `not ready: ${reasons.join("; ")}`;
  // Only changes are read out.
  if (state.textContent !== words) state.textContent = words;
  state.className = ready ? "good" : "bad";
  at("drain").hidden = !status.can_drain || status.state === "draining";
  list("warnings", status.warnings.map((text) => item([[text, "bad"]])));
  list("services", Object.entries(services).map(([name, service]) => item([
    [name], [service.ready ? "ready" : "not ready", service.ready ? "good" : "bad"], [service.reasons.join("; "), "quiet"],
  ])));
  charts(seconds);
  at("links").tBodies[0].replaceChildren(...status.links.map(row));
  at("failures").replaceChildren(...status.last_failures.map((call) => item([
    [time(call.at), "quiet"], [`${call.caller} -> ${call.agent ?? "any agent"} ${call.method}`],
    [`${call.code} (${call.outcome})`, "bad"], [call.reason], [call.call_id, "quiet"],
  ])));
  at("changes").replaceChildren(...status.link_changes.map((change) => item([
    [time(change.at), "quiet"], [change.peer], [change.change, change.change === "up" ? "good" : "bad"],
    [[change.address, change.path, change.reason].filter(Boolean).join(", "), "quiet"],
  ])));
  at("refusals").replaceChildren(...status.refusals.slice(0, 20).map((refusal) => item([
    [`${refusal.count} x`, "bad"], [`${refusal.what} of ${refusal.who}`], [refusal.reason, "quiet"],
  ])));
}

const events = new EventSource("api/v1/events");
events.onmessage = (event) => show(JSON.parse(event.data));
events.onerror = () => {
  at("state").textContent = "no answer from the process; trying again";
  at("state").className = "bad";
};

at("drain").addEventListener("click", () => at("confirm").showModal());
at("confirm").addEventListener("close", async () => {
  if (at("confirm").returnValue !== "drain") return;
  const token = document.querySelector("meta[name=dialback-token]").content;
  await fetch("api/v1/drain", { method: "POST", headers: { "dialback-token": token } });
});
