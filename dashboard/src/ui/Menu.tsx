/** A button with a list of choices: in the browser's top layer, closed by Escape or a click elsewhere. */
import { useId, useRef, useState, type ReactNode } from "react";

export interface Choice {
  key: string;
  label: string;
  hint?: string;
  choose: () => void;
}

export function Menu({ label, choices, disabled, title, children }: { label: string; choices: readonly Choice[]; disabled?: boolean; title?: string; children?: ReactNode }) {
  const list = useRef<HTMLUListElement>(null);
  const [isOpen, setOpen] = useState(false);
  const id = useId();
  const open = (button: HTMLElement) => {
    const element = list.current;
    if (!element) return;
    element.togglePopover();
    if (!element.matches(":popover-open")) return;
    const at = button.getBoundingClientRect();
    const size = element.getBoundingClientRect();
    const below = at.bottom + size.height < window.innerHeight;
    element.style.top = `${Math.max(4, below ? at.bottom + 2 : at.top - size.height - 2)}px`;
    element.style.left = `${Math.max(4, Math.min(at.left, window.innerWidth - size.width - 4))}px`;
    element.querySelector("button")?.focus();
  };
  const move = (event: React.KeyboardEvent<HTMLUListElement>) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...event.currentTarget.querySelectorAll("button")];
    const next = buttons.indexOf(document.activeElement as HTMLButtonElement) + step;
    buttons[(next + buttons.length) % buttons.length]?.focus();
  };
  return (
    <>
      <button
        type="button"
        aria-expanded={isOpen}
        aria-controls={id}
        disabled={disabled}
        title={title}
        onClick={(event) => open(event.currentTarget)}
      >
        {children ?? label} <span aria-hidden="true">▾</span>
      </button>
      <ul id={id} ref={list} popover="auto" className="menu-list" aria-label={label} onKeyDown={move} onToggle={(event) => setOpen(event.newState === "open")}>
        {choices.map((choice) => (
          <li key={choice.key}>
            <button
              type="button"
              onClick={() => {
                list.current?.hidePopover();
                choice.choose();
              }}
            >
              {choice.label}
              {choice.hint && <small>{choice.hint}</small>}
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}
