/** The pages and their addresses. Pages with charts or long tables are loaded when first opened. */
import {
  Link,
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  useLocation,
  useNavigate,
  type ErrorComponentProps,
} from "@tanstack/react-router";

import { Callback, SignInPage } from "./auth/SignIn";
import { CALLBACK } from "./auth/oidc";
import { AreaPage } from "./pages/AreaPage";
import { FleetPage } from "./pages/fleet/FleetPage";
import { s } from "./strings";
import { Shell } from "./ui/Shell";
import { useSession } from "./ui/session";

function Root() {
  const state = useSession();
  const path = useLocation({ select: (location) => location.pathname });
  if (path === CALLBACK) return <SignedInBy />;
  return state === "signed-out" ? <SignInPage /> : <Shell />;
}

function SignedInBy() {
  const navigate = useNavigate();
  return <Callback onDone={(returnTo) => void navigate({ to: returnTo, replace: true })} />;
}

function NotFound() {
  return (
    <div className="page">
      <h1>{s.pages.notFound}</h1>
      <p>{s.pages.notFoundDetail}</p>
      <Link to="/">{s.pages.backToFleet}</Link>
    </div>
  );
}

/** One page's failure does not take the banner and the other pages with it. */
function Failed({ error }: ErrorComponentProps) {
  return (
    <div className="page">
      <h1>{s.problems.pageFailed}</h1>
      <p>{s.problems.pageFailedDetail}</p>
      <pre className="note problem">{error instanceof Error ? error.message : String(error)}</pre>
      <button type="button" onClick={() => window.location.reload()}>
        {s.problems.reload}
      </button>
    </div>
  );
}

const root = createRootRoute({ component: Root, notFoundComponent: NotFound });
const text = (value: unknown): string => (typeof value === "string" ? value : typeof value === "number" ? String(value) : "");

const routes = [
  createRoute({ getParentRoute: () => root, path: "/", component: FleetPage }),
  createRoute({
    getParentRoute: () => root,
    path: "/areas",
    component: AreaPage,
    validateSearch: (search: Record<string, unknown>) => ({ site: text(search["site"]), area: text(search["area"]) }),
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/machines/$machineId",
    component: lazyRouteComponent(() => import("./pages/machine/MachinePage"), "MachinePage"),
    validateSearch: (search: Record<string, unknown>): { range?: string; from?: number; to?: number } => ({
      ...(typeof search["range"] === "string" ? { range: search["range"] } : {}),
      ...(Number.isFinite(search["from"]) && Number.isFinite(search["to"])
        ? { from: Number(search["from"]), to: Number(search["to"]) }
        : {}),
    }),
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/predictions/$predictionId",
    component: lazyRouteComponent(() => import("./pages/EvidencePage"), "EvidencePage"),
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/alarms",
    component: lazyRouteComponent(() => import("./pages/alarms/AlarmsPage"), "AlarmsPage"),
    validateSearch: (search: Record<string, unknown>): { list?: string } =>
      typeof search["list"] === "string" ? { list: search["list"] } : {},
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/advisories",
    component: lazyRouteComponent(() => import("./pages/AdvisoriesPage"), "AdvisoriesPage"),
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/work-orders",
    component: lazyRouteComponent(() => import("./pages/WorkOrdersPage"), "WorkOrdersPage"),
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/kpi",
    component: lazyRouteComponent(() => import("./pages/KpiPage"), "KpiPage"),
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/handover",
    component: lazyRouteComponent(() => import("./pages/HandoverPage"), "HandoverPage"),
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/models",
    component: lazyRouteComponent(() => import("./pages/ModelsPage"), "ModelsPage"),
  }),
  createRoute({
    getParentRoute: () => root,
    path: "/system",
    component: lazyRouteComponent(() => import("./pages/SystemPage"), "SystemPage"),
  }),
  createRoute({ getParentRoute: () => root, path: CALLBACK, component: () => null }),
];

export const router = createRouter({
  routeTree: root.addChildren(routes),
  defaultErrorComponent: Failed,
  defaultPreload: "intent",
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
