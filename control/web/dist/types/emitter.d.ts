/** Those who want to know of events, by name. */
export declare class Emitter<Events extends object> {
    private readonly heard;
    /** Calls `listener` at every event of this name; gives what ends that. */
    on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void;
    /** As {@link on}, for the next event only. */
    once<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void;
    /** Ends what {@link on} began. */
    off<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): void;
    /** A listener that fails keeps no other from hearing. */
    protected emit<Name extends keyof Events>(name: Name, detail: Events[Name]): void;
}
