/** Level 2: one area of one site. */
import { useQuery } from "@tanstack/react-query";
import { Link, useSearch } from "@tanstack/react-router";

import { fleet } from "../api/queries";
import { s } from "../strings";
import { Loaded } from "../ui/Loaded";
import { Overview } from "./fleet/FleetPage";

export function AreaPage() {
  const { site, area } = useSearch({ from: "/areas" });
  const query = useQuery(fleet({ site, area }));
  return (
    <div className="page fleet">
      <p className="trail">
        <Link to="/">{s.pages.fleet}</Link> › {site} · {area}
      </p>
      <Loaded query={query}>{(data) => <Overview data={data} title={`${s.pages.area} ${area}`} />}</Loaded>
    </div>
  );
}
