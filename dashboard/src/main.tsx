import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { queryClient } from "./api/queries";
import { session, takeTokenFromAddress } from "./auth/session";
import { router } from "./router";
import "./styles/tokens.css";
import "./styles/shell.css";
import "./styles/parts.css";
import "./styles/pages.css";
import "./styles/print.css";

takeTokenFromAddress();

// Another person's data is not shown to the next one; a renewed token goes on where it was.
session.subscribe(() => {
  if (session.state() === "signed-out") queryClient.clear();
  else if (session.state() === "signed-in") void queryClient.invalidateQueries();
});

const element = document.getElementById("root");
if (!element) throw new Error("index.html has no #root");
createRoot(element).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <RouterProvider router={router} />
    </QueryClientProvider>
  </StrictMode>,
);
