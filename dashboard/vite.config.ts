/// <reference types="vitest/config" />
import { defineConfig } from "vite";

// `npm run dev` beside a running API: CONSOLE_API=http://127.0.0.1:18000 npm run dev
const api = process.env["CONSOLE_API"] ?? "http://127.0.0.1:18000";

export default defineConfig({
  build: {
    outDir: process.env["CONSOLE_OUT"] ?? "../serving/console",
    emptyOutDir: true,
    target: "es2022",
    // The content security policy allows no data: scripts or styles, so nothing is inlined.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: {
      onwarn(warning, warn) {
        // "use client" of libraries means nothing outside server components.
        if (warning.code !== "MODULE_LEVEL_DIRECTIVE") warn(warning);
      },
    },
  },
  server: { proxy: { "/api": { target: api, ws: true } } },
  test: { environment: "jsdom", isolate: false, maxWorkers: 1, include: ["src/**/*.test.{ts,tsx}"] },
});
