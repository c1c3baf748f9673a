"""What a configuration would take on a cluster: counted work, a model of its time and memory, and one rank of it rehearsed."""
