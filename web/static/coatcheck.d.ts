/** What went wrong, in the service's words. */
export class CoatcheckError extends Error {
  /** The status of the answer; 0 when there was none. */
  readonly status: number;
  /** The seconds after which the service asked to be tried again. */
  readonly retryAfter: number | null;
}

export interface Progress {
  /** The name under which the file is stored. */
  name: string;
  loaded: number;
  total: number;
}

export interface Sending {
  onProgress?: (progress: Progress) => void;
  /** Aborts it; nothing of the file is left. */
  signal?: AbortSignal;
}

export interface StoredFile {
  name: string;
  bytes: number;
  url: string;
}

export interface SessionFile {
  name: string;
  bytes: number;
  /** Uploaded; on its way; or no longer there and to be sent again by `resend()`. */
  state: "stored" | "sending" | "lost";
}

/** The session as the service tells it; times are RFC 3339 UTC. */
export interface SessionJson {
  session_id: string;
  state: string;
  label: string | null;
  created_at: string;
  last_touch_at: string;
  expires_at: string;
  bytes: number;
  files: { name: string; bytes: number }[];
}

export interface SessionEvents {
  /** Swept, deleted by somebody, or the page came back after leaving; `detail` says why. */
  ended: CustomEvent<string>;
  /** The service is not ready: what was asked of it is asked again in so many seconds. */
  retry: CustomEvent<{ reason: string; seconds: number }>;
}

/**
 * Uploads that go when their user does: one session on the server, made with its first file,
 * touched while the page is visible, and deleted when the page is left.
 */
export class CoatcheckSession extends EventTarget {
  /** `base`: where the upload routes are; else those of the service that this module is from. */
  constructor(options?: { base?: string | URL; label?: string });

  readonly state: "new" | "active" | "claimed" | "discarded" | "ended";
  /** The right to use the session: for the backend, not for URLs or storage. */
  readonly id: string | null;
  readonly expiresAt: Date | null;
  readonly files: SessionFile[];

  /** Makes the session without a file, for who uploads by other means; its URL. */
  open(): Promise<string>;
  /** Uploads one file, whole or not at all; a name that is taken is numbered. */
  upload(file: Blob, options?: Sending & { name?: string }): Promise<StoredFile>;
  /** After "ended": sends the files again, into a new session. */
  resend(options?: Sending): Promise<StoredFile[]>;
  /** Takes one file out again. */
  remove(name: string): Promise<void>;
  touch(): Promise<void>;
  /** Leaving the page no longer discards the session. */
  keep(): void;
  /** Moves it below the claims directory, and keeps it. */
  claim(into: string): Promise<SessionJson>;
  discard(): Promise<void>;

  addEventListener<K extends keyof SessionEvents>(
    type: K,
    listener: (event: SessionEvents[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}
