/** Handlers of one event; one that returns `false` is the last to hear. */
export declare class Callbacks<Detail = undefined> {
    private readonly handlers;
    add(handler: (detail: Detail) => unknown): void;
    remove(handler: (detail: Detail) => unknown): void;
}
/** What goes wrong; `name` is the guide's word for it. */
export declare class GrtcError extends Error {
    constructor(name: "CONFIGURATION_ERROR" | "INVALID_STATE_ERROR" | "WEBRTC_ERROR" | "CONNECT_ERROR", message: string);
}
/** The guide's parameters that mean something here; all others are taken and ignored. */
export interface Configuration {
    /** URLs of appliances, separated by commas: the first one that signs in is used. */
    webrtc_gateway: string;
    /** `host:port`, several separated by commas. */
    stun_server?: string;
    turn_server?: string;
    turn_username?: string;
    turn_password?: string;
    /** The number's password, where the SIP server wants one; `sip_username` is the number itself. */
    sip_username?: string;
    sip_password?: string;
    /** Milliseconds. */
    noanswer_timeout?: number | string;
    ice_timeout?: number | string;
    polling_timeout?: number | string;
    /** Ours: a bearer token. */
    sallyport_token?: string;
    [more: string]: unknown;
}
/** A browser that is signed in, or about to be. */
export declare class Client {
    readonly configuration: Configuration;
    readonly onConnect: Callbacks<Record<string, never>>;
    readonly onRegister: Callbacks<Record<string, never>>;
    readonly onDisconnect: Callbacks<Record<string, never>>;
    readonly onFailed: Callbacks<{
        message: string;
    }>;
    readonly onMediaSuccess: Callbacks<{
        stream: MediaStream;
    }>;
    readonly onMediaFailure: Callbacks<{
        message: string;
    }>;
    readonly onIncomingCall: Callbacks<{
        peer: string;
    }>;
    readonly onPeerClosing: Callbacks<Record<string, never>>;
    readonly onPeerNoanswer: Callbacks<Record<string, never>>;
    readonly onIceDisconnected: Callbacks<Record<string, never>>;
    readonly onConnectionError: Callbacks<{
        message: string;
    }>;
    readonly onGatewayError: Callbacks<{
        message: string;
        error: string;
    }>;
    readonly onWebrtcError: Callbacks<{
        message: string;
    }>;
    readonly onNotifyEvent: Callbacks<{
        event: "talk" | "hold";
        peer: string;
    }>;
    readonly onInfoFromPeer: Callbacks<Record<string, unknown>>;
    readonly onStatsFromServer: Callbacks<Record<string, unknown>>;
    readonly onCallEvent: Callbacks<{
        event: string;
    }>;
    private readonly sessions;
    private readonly gateways;
    private session;
    private base;
    private after;
    private generation;
    constructor(configuration: Configuration);
    /** Signs in as a customer. */
    connect(): void;
    /** Signs in as an agent with a directory number. */
    register(dn: string): void;
    /** Signs out; calls end. */
    disconnect(): void;
    /** Asks for the microphone. Video is not carried: `video` alone is a failure, beside audio it is ignored. */
    enableMediaSource(audio?: boolean | MediaTrackConstraints, video?: boolean | MediaTrackConstraints): void;
    /** Gives the microphone back. */
    disableMediaSource(): void;
    /** Plays a stream by an element of the page. */
    setViewFromStream(element: HTMLMediaElement, stream: MediaStream): void;
    /** Which candidates are told; a page may put its own in its place. */
    filterIceCandidates(candidates: RTCIceCandidateInit[]): RTCIceCandidateInit[];
    setLogLevel(_level: number): void;
    setRenewSessionOnNeed(_on: boolean): void;
    setMediaConstraintsForOffer(_audio: boolean, _video: boolean): void;
    setMediaConstraintsForAnswer(_audio: boolean, _video: boolean): void;
    setVideoBandwidth(_kilobits: number): void;
    private url;
    private leave;
    private enter;
    /** One GET after the other, as long as this sign-in lasts. */
    private poll;
    private take;
}
/** A call. One object may have several, one after the other. */
export declare class MediaSession {
    private readonly client;
    readonly onRemoteStream: Callbacks<{
        stream: MediaStream;
    }>;
    readonly onSessionHold: Callbacks<boolean>;
    private peer;
    private offerer;
    private answerer;
    private seq;
    private remote;
    private settled;
    private refused;
    private data;
    private timer;
    private chain;
    constructor(client: Client);
    /** Calls a number. Video is not carried. */
    makeCall(remoteId: string, _audio?: boolean, _video?: boolean): void;
    /** Calls a number, or offers anew within the call: after a failure of ICE, to hold, to resume. */
    makeOffer(remoteId?: string, _audio?: boolean, _video?: boolean, hold?: boolean): void;
    /** Takes the call that rings. */
    acceptCall(_audio?: boolean, _video?: boolean, remoteId?: string): void;
    /** Does not take it. */
    rejectCall(): void;
    /** Nothing is sent nor heard until {@link resumeCall}. */
    holdCall(): void;
    resumeCall(): void;
    /** Sends sound or silence. */
    updateCall(audio?: boolean, _video?: boolean): void;
    /** Ends the call. */
    terminateCall(): void;
    /** Ends the call here, and for the far side where `sendBye` says so. */
    closeSession(sendBye?: boolean): void;
    /** Sends digits; whether they can be sent. Milliseconds. */
    sendDTMF(tones: string, { duration, tonegap }?: {
        duration?: number;
        tonegap?: number;
    }): boolean;
    /** Sends user data to the far end. */
    sendInfo(data: unknown, _mapToSip?: boolean): void;
    /** Data that goes along with the next call: as headers `X-KEY` of its INVITE. */
    setData(data: {
        key: string;
        value: string;
    }[] | Record<string, string>): void;
    /** Data that came along. */
    getData(): {
        key: string;
        value: string;
    }[];
    /** Asks for figures; they come to `onStatsFromServer`. */
    getServerStats(): void;
    isEstablished(): boolean;
    private word;
    private send;
    private begin;
    /** Offers do not overtake each other. */
    private again;
    private offer;
    /** The offer with those candidates that the page lets pass. */
    private filtered;
    private answered;
    private failed;
}
/** `a=1&b=2` as an object. */
export declare function deparam(query: string): Record<string, string>;
/** Whether this browser can call. */
export declare function isWebrtcSupported(): boolean;
/** `chrome`, `firefox`, `safari` or `other`. */
export declare function getWebrtcDetectedBrowser(): string;
export { GrtcError as Error };
