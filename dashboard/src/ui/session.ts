/** The session as React sees it. */
import { useSyncExternalStore } from "react";

import { session, type State } from "../auth/session";

export const useSession = (): State => useSyncExternalStore(session.subscribe, session.state);
