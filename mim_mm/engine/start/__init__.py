"""Before the first step: the command line, guards that read config and data, schedules that fit the run."""
