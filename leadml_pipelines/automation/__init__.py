"""When it is materialized: jobs, schedules, sensors."""
