"""Where data, tasks, networks, objective and runtime meet: build, step, loop, evaluation."""
