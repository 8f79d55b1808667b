/** Microphone as it is for speech. */
export declare const SPEECH: MediaTrackConstraints;
/** A fragment with candidates for the server (RFC 8840): those of `sdp`'s ICE generation. `null` is the end of candidates. */
export declare function fragment(sdp: string, candidates: (RTCIceCandidate | null)[]): string | undefined;
/** Waits until all candidates are found, or for so long. */
export declare function gathered(peer: RTCPeerConnection, patience: number): Promise<void>;
/** Waits until media can pass both ways. */
export declare function connected(peer: RTCPeerConnection, patience: number): Promise<void>;
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
/** Makes {@link Quality} of the browser's reports. */
export declare class Meter {
    private before?;
    read(peer: RTCPeerConnection): Promise<Quality>;
}
