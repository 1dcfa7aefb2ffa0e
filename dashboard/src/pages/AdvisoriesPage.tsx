export function AdvisoriesPage() { return null; }
