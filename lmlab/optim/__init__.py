"""Update rules and learning-rate schedules; their numbers may be tracers."""
