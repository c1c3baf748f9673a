"""Everything that is written into a run folder, with one writer and one reader each."""
