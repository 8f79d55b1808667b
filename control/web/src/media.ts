/** Microphone as it is for speech. */
export const SPEECH: MediaTrackConstraints = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/** A fragment with candidates for the server (RFC 8840): those of `sdp`'s ICE generation. `null` is the end of candidates. */
export function fragment(sdp: string, candidates: (RTCIceCandidate | null)[]): string | undefined {
  const line = (pattern: RegExp) => sdp.match(pattern)?.[0].trim();
  const media = line(/^m=.*$/m);
  const mid = line(/^a=mid:.*$/m);
  const ufrag = line(/^a=ice-ufrag:.*$/m);
  const password = line(/^a=ice-pwd:.*$/m);
  if (!media || !mid || !ufrag || !password) return undefined;
  const lines = candidates.map(one => (one ? "a=" + one.candidate : "a=end-of-candidates"));
  return [ufrag, password, media, mid, ...lines, ""].join("\r\n");
}

/** Waits until all candidates are found, or for so long. */
export function gathered(peer: RTCPeerConnection, patience: number): Promise<void> {
  return new Promise(resolve => {
    const look = () => {
      if (peer.iceGatheringState === "complete") resolve();
    };
    peer.addEventListener("icegatheringstatechange", look);
    setTimeout(resolve, patience);
    look();
  });
}

/** Waits until media can pass both ways. */
export function connected(peer: RTCPeerConnection, patience: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (peer.connectionState === "connected") resolve();
      else if (peer.connectionState === "failed" || peer.connectionState === "closed") reject(new Error("no connection came about"));
    };
    peer.addEventListener("connectionstatechange", look);
    setTimeout(() => reject(new Error("no connection came about in time")), patience);
    look();
  });
}

/** How a call sounds, over the time since it was asked last. */
export interface Quality {
  /** Milliseconds to the appliance and back. */
  roundTrip?: number;
  /** Milliseconds. */
  jitter?: number;
  /** Percent of the packets that should have come. */
  loss: number;
  /** Kilobits a second. */
  receiving: number;
  sending: number;
  /** `PCMU`, `opus` ... */
  codec?: string;
  /** Mean opinion score, 1 to 4.5 (a simplified E-model, ITU-T G.107). */
  mos: number;
  /** Packets since the call began. */
  packetsReceived: number;
  packetsSent: number;
  packetsLost: number;
}

interface Sums {
  at: number;
  received: number;
  lost: number;
  octetsIn: number;
  octetsOut: number;
}

/** Makes {@link Quality} of the browser's reports. */
export class Meter {
  private before?: Sums;

  async read(peer: RTCPeerConnection): Promise<Quality> {
    const reports = new Map<string, Record<string, unknown>>();
    (await peer.getStats()).forEach((report: Record<string, unknown>) => reports.set(String(report["id"]), report));
    const all = [...reports.values()];
    const audio = (type: string) => all.find(one => one["type"] === type && one["kind"] === "audio") ?? {};
    const incoming = audio("inbound-rtp");
    const outgoing = audio("outbound-rtp");
    const pair = all.find(one => one["type"] === "candidate-pair" && one["state"] === "succeeded"
      && (one["nominated"] === true || one["selected"] === true)) ?? {};
    const number = (value: unknown) => (typeof value === "number" ? value : 0);
    const now: Sums = {
      at: performance.now(), received: number(incoming["packetsReceived"]), lost: number(incoming["packetsLost"]),
      octetsIn: number(incoming["bytesReceived"]), octetsOut: number(outgoing["bytesSent"]),
    };
    const then = this.before ?? { ...now, at: now.at - 1000, received: 0, lost: 0, octetsIn: 0, octetsOut: 0 };
    this.before = now;
    const lost = Math.max(0, now.lost - then.lost);
    const expected = lost + now.received - then.received;
    const rate = (octets: number) => Math.max(0, Math.round((octets * 8) / Math.max(1, now.at - then.at)));
    const codec = reports.get(String(incoming["codecId"]))?.["mimeType"];
    const trip = pair["currentRoundTripTime"] ?? audio("remote-inbound-rtp")["roundTripTime"];
    const quality: Quality = {
      loss: expected > 0 ? (100 * lost) / expected : 0,
      receiving: rate(now.octetsIn - then.octetsIn), sending: rate(now.octetsOut - then.octetsOut),
      packetsReceived: now.received, packetsSent: number(outgoing["packetsSent"]), packetsLost: now.lost, mos: 0,
    };
    if (typeof trip === "number") quality.roundTrip = Math.round(trip * 1000);
    if (typeof incoming["jitter"] === "number") quality.jitter = Math.round(incoming["jitter"] * 1000);
    if (typeof codec === "string") quality.codec = codec.replace(/^audio\//i, "");
    quality.mos = mos(quality);
    return quality;
  }
}

function mos({ roundTrip = 0, jitter = 0, loss }: Quality): number {
  const delay = roundTrip / 2 + 2 * jitter + 40;
  const slow = 0.024 * delay + (delay > 177.3 ? 0.11 * (delay - 177.3) : 0);
  const r = Math.max(0, Math.min(93.2, 93.2 - slow - 95 * (loss / (loss + 25))));
  return Math.round(100 * (1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)) / 100;
}
