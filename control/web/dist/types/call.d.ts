import { Emitter } from "./emitter.js";
import { Quality } from "./media.js";
/** Where a call stands; `incoming`: it rings here. */
export type CallState = "incoming" | "calling" | "ringing" | "early" | "answered" | "connected" | "ended";
/** What happens to a call. */
export interface CallEvents {
    /** Every change of {@link Call.state}. */
    state: CallState;
    /** The far side's sound. */
    media: MediaStream;
    /** Hold by the far end began or ended, or by us. */
    hold: {
        byUs: boolean;
        byThem: boolean;
    };
    /** A digit of the far end. */
    dtmf: {
        digit: string;
        duration: number;
    };
    /** User data of the far end. */
    data: {
        contentType: string;
        body: string;
    };
    /** How far a transfer is: a SIP status. */
    transfer: number;
    /** Whether its sound is copied to a recorder, or to somebody who listens in. */
    recording: boolean;
    /** The SIP server wants the call to be taken or resumed (`talk`), or held. */
    asked: "talk" | "hold";
    /** Another connection took the place of the former one ({@link Call.renew}), or did not. */
    renewed: boolean;
    /** The far side wants to show a picture, and this call has none: {@link Call.addVideo} adds one. */
    video: "offered";
    /** Every two seconds while connected. */
    quality: Quality;
    /** The last event. */
    ended: {
        cause: string;
        detail: string;
    };
}
/** How a call's media are made. */
export interface MediaOptions {
    /** A stream of yours, with a picture if it has one, or what to ask the microphone for. */
    media?: MediaStream | MediaTrackConstraints;
}
/** What calls need of their client. */
export interface Settings {
    iceServers: RTCIceServer[];
    /** Candidates follow the offer as they are found. */
    trickle: boolean;
    /** Whether the far side is played by itself. */
    play: boolean;
    qualityInterval: number;
}
/** A call, from the first ring to the end. */
export declare class Call extends Emitter<CallEvents> {
    private readonly link;
    private readonly settings;
    readonly direction: "in" | "out";
    readonly from: string;
    readonly to: string;
    /** Name of the call at the appliance, a secret; empty before it is known. */
    id: string;
    state: CallState;
    /** The far side's sound, once there is some. */
    remote?: MediaStream;
    /** What is sent. */
    local?: MediaStream;
    held: {
        byUs: boolean;
        byThem: boolean;
    };
    muted: boolean;
    cause?: string;
    peer?: RTCPeerConnection;
    private found;
    private readonly meter;
    private readonly player?;
    private ownMedia;
    private claimed;
    private offered;
    private chain;
    private restarts;
    private restartTimer?;
    private qualityTimer?;
    /** The other party's number. */
    get party(): string;
    /** Takes a call that rings here. */
    answer(options?: MediaOptions): Promise<void>;
    /** Does not take it; the caller hears `status` if nobody else does. */
    decline(status?: number): Promise<void>;
    /** Ends the call. */
    hangup(): Promise<void>;
    private lost;
    /** Nothing is sent nor heard until {@link resume}. */
    hold(): Promise<void>;
    /** Goes on after {@link hold}. */
    resume(): Promise<void>;
    /** Sends silence; tells nobody. */
    mute(muted?: boolean): void;
    /** Sends digits `0-9A-D*#`, each so long, with pauses between, in milliseconds. */
    dtmf(digits: string, { duration, gap }?: {
        duration?: number | undefined;
        gap?: number | undefined;
    }): Promise<void>;
    /** Connects the far end with a number, or with the far end of another call of ours. Resolves when those two talk. */
    transfer(target: string | Call): Promise<void>;
    /** Sends user data to the far end. */
    sendData(data: unknown, contentType?: string): Promise<void>;
    /** How the call sounds here. */
    stats(): Promise<Quality>;
    /** The call as the appliance sees it, as REST gives it. */
    serverStats(): Promise<Record<string, unknown>>;
    /** Goes on with another microphone. */
    useMicrophone(media: MediaTrackConstraints): Promise<void>;
    /**
     * Adds a picture to a call of sound: the camera's, that of a stream of yours, or with `null` the far side's alone. Fails with
     * `refused` where the far side takes none; the call goes on.
     */
    addVideo(media?: MediaStream | MediaTrackConstraints | null): Promise<void>;
    private reclaim;
    /** Asks of this call, once it is ours. */
    private ask;
    /** Goes on by another connection: a page that was loaded anew, or whose network has changed for good. The former one plays and
     * speaks until the other one does, and goes on where nothing comes of that. */
    renew({ media }?: MediaOptions): Promise<void>;
    private replace;
    private hears;
    private fail;
    private enter;
    private mark;
    private offer;
    private open;
    private hear;
    /** Another connection, which is the call's from now on. */
    private connect;
    private describe;
    private described;
    private trickle;
    private answered;
    /** One after the other: offers do not overtake each other. */
    private renegotiate;
    private turn;
    private watch;
    private restart;
}
