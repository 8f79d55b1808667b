/** Those who want to know of events, by name. */
export class Emitter<Events extends object> {
  private readonly heard = new Map<keyof Events, Set<(detail: never) => void>>();

  /** Calls `listener` at every event of this name; gives what ends that. */
  on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void {
    const all = this.heard.get(name) ?? new Set();
    this.heard.set(name, all);
    all.add(listener as (detail: never) => void);
    return () => this.off(name, listener);
  }

  /** As {@link on}, for the next event only. */
  once<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void {
    const off = this.on(name, detail => {
      off();
      listener(detail);
    });
    return off;
  }

  /** Ends what {@link on} began. */
  off<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): void {
    this.heard.get(name)?.delete(listener as (detail: never) => void);
  }

  /** A listener that fails keeps no other from hearing. */
  protected emit<Name extends keyof Events>(name: Name, detail: Events[Name]): void {
    for (const listener of [...(this.heard.get(name) ?? [])]) {
      try {
        (listener as (detail: Events[Name]) => void)(detail);
      } catch (error) {
        console.error(error);
      }
    }
  }
}
