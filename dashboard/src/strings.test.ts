/** Every text a person reads is in strings.ts: a second language is a second catalogue. */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { expect, it } from "vitest";

const ROOT = join(process.cwd(), "src");
const READ_ALOUD = new Set(["title", "alt", "placeholder", "aria-label", "label"]);

const files = readdirSync(ROOT, { recursive: true, encoding: "utf8" }).filter((f) => f.endsWith(".tsx") && !f.includes(".test."));

it.each(files)("%s has no text of its own", (file) => {
  const found: string[] = [];
  const source = ts.createSourceFile(file, readFileSync(join(ROOT, file), "utf8"), ts.ScriptTarget.Latest, true, ts.ScriptKind.TSX);
  const visit = (node: ts.Node): void => {
    if (ts.isJsxText(node) && /\p{L}{2}/u.test(node.text)) found.push(node.text.trim());
    if (ts.isJsxAttribute(node) && READ_ALOUD.has(node.name.getText()) && node.initializer && ts.isStringLiteral(node.initializer) && /\p{L}/u.test(node.initializer.text)) {
      found.push(node.initializer.text);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  expect(found).toEqual([]);
});

it("the build's page has no text but the product's name and the note for browsers without scripts", () => {
  const page = readFileSync(join(ROOT, "../index.html"), "utf8").replace(/<[^>]+>/g, "").trim();
  expect(page.split(/\n\s*/)).toEqual(["AegisOps", "AegisOps Mission Control needs JavaScript."]);
});
