"""Who is told when a job needs somebody: of runs that fail, of the gate's refusals, of what goes stale; and how that is sent."""
