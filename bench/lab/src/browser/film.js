"use strict";
// A picture beside the sound: Chromium's own test picture goes out, what comes in is looked at.
lab.camera = async () => {
  const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240, frameRate: 15 } });
  for (const track of camera.getVideoTracks()) lab.microphone.addTrack(track);
};

// Adds the camera in the middle of the call.
lab.addCamera = async () => {
  const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240, frameRate: 15 } });
  for (const track of camera.getVideoTracks()) lab.peer.addTrack(track, lab.microphone);
  return lab.direct(lab.peer.getTransceivers()[0].direction);
};

// What the browser says of both directions of the picture, and the mean colour of the last one that came.
lab.film = async () => {
  const reports = [...(await lab.peer.getStats()).values()].filter(report => report.kind === "video");
  const one = type => reports.find(report => report.type === type) || {};
  const inbound = one("inbound-rtp"), outbound = one("outbound-rtp"), far = one("remote-inbound-rtp");
  if (!lab.screen) {
    lab.screen = document.createElement("video");
    Object.assign(lab.screen, { muted: true, autoplay: true, srcObject: new MediaStream(lab.far.getVideoTracks()) });
    document.body.append(lab.screen);
    // It begins with the first picture, which may never come.
    lab.screen.play().catch(() => {});
  }
  const canvas = new OffscreenCanvas(16, 16).getContext("2d");
  canvas.drawImage(lab.screen, 0, 0, 16, 16);
  const pixels = canvas.getImageData(0, 0, 16, 16).data;
  const colour = [0, 1, 2].map(at => Math.round(pixels.filter((_, index) => index % 4 === at).reduce((a, b) => a + b) / 256));
  return {
    decoded: inbound.framesDecoded || 0, keys: inbound.keyFramesDecoded || 0, lost: inbound.packetsLost || 0,
    asked: (inbound.pliCount || 0) + (inbound.firCount || 0), encoded: outbound.framesEncoded || 0,
    was_asked: (outbound.pliCount || 0) + (outbound.firCount || 0), sent: outbound.packetsSent || 0,
    reported_lost: far.packetsLost ?? null, colour,
  };
};

// Turns the picture on or off by another offer: `sendrecv`, `recvonly`, `inactive`.
lab.turn = async direction => {
  lab.peer.getTransceivers().find(one => one.receiver.track.kind === "video").direction = direction;
  return lab.direct(lab.peer.getTransceivers()[0].direction);
};
