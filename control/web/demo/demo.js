// The demo page: what a page of yours would do with the client, and nothing else.
import { Sallyport } from "../client/sallyport.js";

const at = id => document.getElementById(id);
const words = {
  incoming: "calls", calling: "calling …", ringing: "rings", early: "rings", answered: "connecting …", connected: "connected",
  ended: "ended", held: "on hold", heldByThem: "on hold by the other side",
};
const connections = { idle: "not connected", connecting: "connecting …", up: "connected", waiting: "reconnecting …" };
const query = new URLSearchParams(location.search);
// A microphone with these switched off, for tests that judge tones.
const media = query.has("raw") ? { echoCancellation: false, noiseSuppression: false, autoGainControl: false } : undefined;

const client = new Sallyport({ url: new URL("..", location.href).href, keep: query.has("keep") });
// For the console, and for tests.
window.sallyport = client;

const trouble = text => {
  at("trouble").hidden = !text;
  at("trouble").textContent = text ?? "";
};
const attempt = action => async event => {
  event?.preventDefault();
  trouble();
  try {
    await action(event);
  } catch (error) {
    trouble(error.message ?? String(error));
  }
};

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[role=tab]")) {
      other.setAttribute("aria-selected", String(other === tab));
      at(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
  });
}
if (location.hash === "#agent") at("tab-agent").click();
at("to").value = query.get("to") ?? "";

client.on("connection", state => {
  at("connection").dataset.state = state;
  at("connection").textContent = connections[state];
});
client.on("signedout", error => {
  showAgent();
  trouble(error.message);
});
client.on("registration", ({ state, detail }) => {
  if (state === "failed") trouble(`the number is not registered: ${detail ?? "the SIP server refuses"}`);
});
client.on("call", call => show(call));
// Calls of this tab that went on while the page was loaded anew.
if (query.has("keep")) client.restore(media ? { media } : {}).then(showAgent, error => trouble(error.message));

at("dial").addEventListener("submit", attempt(async () => {
  const token = at("token").value;
  if (client.connection === "idle") await client.signIn(token ? { token } : {});
  client.call(at("to").value.trim(), media ? { media } : {});
}));
at("sign-in").addEventListener("submit", attempt(async () => {
  const [number, password, token] = ["number", "password", "agent-token"].map(id => at(id).value.trim());
  at("enter").disabled = true;
  try {
    await client.signIn({ number, ...(password && { password }), ...(token && { token }) });
  } finally {
    at("enter").disabled = false;
  }
  showAgent();
}));
at("leave").addEventListener("click", attempt(async () => {
  await client.signOut();
  showAgent();
}));

function showAgent() {
  const number = client.connection === "idle" ? null : client.number;
  at("own-number").textContent = number ?? "";
  at("signed-in").hidden = !number;
  at("sign-in").hidden = Boolean(number);
}

function show(call) {
  const card = at("call").content.firstElementChild.cloneNode(true);
  const part = name => card.querySelector("." + name);
  part("party").textContent = call.party;
  const since = performance.now();
  let begun;
  const clock = setInterval(() => {
    const seconds = begun === undefined ? 0 : Math.floor((performance.now() - begun) / 1000);
    if (begun !== undefined) part("time").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }, 500);
  const paint = () => {
    const held = call.held.byUs ? "held" : call.held.byThem ? "heldByThem" : call.state;
    card.dataset.state = call.state;
    part("state").textContent = words[call.state === "connected" ? held : call.state];
    part("ring").hidden = call.state !== "incoming";
    part("talk").hidden = !["answered", "connected"].includes(call.state);
    part("hangup").hidden = ["incoming", "ended"].includes(call.state);
    part("hold").setAttribute("aria-pressed", String(call.held.byUs));
    part("hold").textContent = call.held.byUs ? "Resume" : "Hold";
    part("mute").setAttribute("aria-pressed", String(call.muted));
    if (call.state === "connected") begun ??= performance.now();
  };
  call.on("state", paint);
  call.on("hold", paint);
  call.on("ended", ({ cause, detail }) => {
    clearInterval(clock);
    for (const name of ["pad", "onward"]) part(name).hidden = true;
    part("state").textContent = ["hang_up", "remote_hang_up", "signed_out"].includes(cause) ? "ended" : detail;
    setTimeout(() => card.remove(), Math.max(8000, 12000 - (performance.now() - since)));
  });
  buttons(call, card, part, paint);
  picture(call, part);
  paint();
  at("calls").prepend(card);
}

function buttons(call, card, part, paint) {
  const click = (name, action) => part(name).addEventListener("click", attempt(action));
  const unfold = (name, what) => click(name, async () => {
    part(what).hidden = !part(what).hidden;
    part(name).setAttribute("aria-expanded", String(!part(what).hidden));
  });
  click("answer", async () => {
    part("answer").disabled = true;
    await call.answer(media ? { media } : {});
  });
  click("decline", () => call.decline());
  click("hangup", () => call.hangup());
  click("hold", async () => {
    part("hold").disabled = true;
    try {
      await (call.held.byUs ? call.resume() : call.hold());
    } finally {
      part("hold").disabled = false;
    }
  });
  click("mute", async () => {
    call.mute(!call.muted);
    paint();
  });
  unfold("keys", "pad");
  unfold("move", "onward");
  for (const digit of "123456789*0#") {
    const key = document.createElement("button");
    key.textContent = digit;
    key.addEventListener("click", attempt(() => call.dtmf(digit)));
    part("pad").append(key);
  }
  part("onward").addEventListener("submit", attempt(async () => {
    await call.transfer(card.querySelector(".target").value.trim());
  }));
}

// Quality over the last minute: the score as a line, lost packets as bars.
function picture(call, part) {
  const past = [];
  call.on("quality", quality => {
    part("quality").hidden = false;
    past.push(quality);
    if (past.length > 30) past.shift();
    part("mos").textContent = quality.mos.toFixed(1);
    part("trip").textContent = quality.roundTrip === undefined ? "–" : `${quality.roundTrip} ms`;
    part("jitter").textContent = quality.jitter === undefined ? "–" : `${quality.jitter} ms`;
    part("loss").textContent = `${quality.loss.toFixed(1)} %`;
    part("codec").textContent = quality.codec ?? "–";
    draw(part("quality").querySelector("canvas"), past);
  });
}

function draw(canvas, past) {
  const style = getComputedStyle(canvas);
  const colour = name => style.getPropertyValue(name);
  const { width, height } = canvas;
  const pen = canvas.getContext("2d");
  const x = index => (width * (index + 1)) / 31;
  const y = mos => height - 6 - ((mos - 1) / 3.5) * (height - 12);
  pen.clearRect(0, 0, width, height);
  pen.strokeStyle = colour("--line");
  for (const mos of [2, 3, 4]) {
    pen.beginPath();
    pen.moveTo(0, y(mos));
    pen.lineTo(width, y(mos));
    pen.stroke();
  }
  pen.fillStyle = colour("--stop");
  past.forEach(({ loss }, index) => {
    const tall = Math.min(1, loss / 20) * (height - 12);
    pen.fillRect(x(index) - 4, height - tall, 8, tall);
  });
  pen.strokeStyle = colour("--accent");
  pen.lineWidth = 3;
  pen.lineJoin = "round";
  pen.beginPath();
  past.forEach(({ mos }, index) => (index ? pen.lineTo(x(index), y(mos)) : pen.moveTo(x(index), y(mos))));
  pen.stroke();
}
