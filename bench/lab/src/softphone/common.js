"use strict";
// What a page does with a SIP library, in pieces that the lab calls one by one; `soft` is the library's own part.
const AUDIO = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const soft = { events: [], waiting: [] };

soft.note = (name, detail = null) => {
  soft.events.push({ name, detail });
  soft.waiting.splice(0).forEach(wake => wake());
};

// The next event of this name, waited for; others are left for those who want them.
lab.softEvent = async ({ name, patience }) => {
  const until = performance.now() + patience;
  for (;;) {
    const at = soft.events.findIndex(event => event.name === name);
    if (at >= 0) return soft.events.splice(at, 1)[0].detail;
    const left = until - performance.now();
    if (left <= 0) throw new Error(`no ${name}, but ${JSON.stringify(soft.events)}`);
    await Promise.race([new Promise(wake => soft.waiting.push(wake)), pause(left)]);
  }
};

// The peer connection of a call, for the lab's statistics and recordings.
soft.hook = peer => {
  if (lab.peer === peer) return;
  lab.peer = peer;
  lab.begin = performance.now();
  lab.timings = {};
  lab.states = [];
  const note = () => lab.states.push(peer.iceConnectionState + "/" + peer.connectionState);
  peer.addEventListener("iceconnectionstatechange", note);
  peer.addEventListener("connectionstatechange", note);
  const hear = track => {
    if (track.kind === "video") return lab.far && lab.far.addTrack(track);
    lab.far = new MediaStream([track]);
    document.getElementById("far").srcObject = lab.far;
  };
  peer.addEventListener("track", event => hear(event.track));
  const here = peer.getReceivers().map(receiver => receiver.track).find(track => track && track.kind === "audio");
  if (here) hear(here);
};

lab.softRegister = options => {
  soft.events.length = 0;
  return soft.register(options);
};
// What a library gives back is its own business, and cannot always be told.
const does = action => async argument => { await action(argument); };
lab.softDial = does(to => soft.dial(to));
lab.softAnswer = does(() => soft.answer());
lab.softHold = does(on => soft.hold(on));
lab.softDigit = does(digit => soft.digit(digit));
lab.softRefer = does(to => soft.refer(to));
lab.softBye = does(() => soft.bye());
lab.softUnregister = does(() => soft.unregister());
