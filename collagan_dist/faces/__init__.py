"""Drawn faces in CelebA's layout, with exact landmarks and label maps, for where no real data set can be shipped."""
