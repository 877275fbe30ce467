"""States of users under one version: slabs on the CPU and on a GPU, and which user has which slot."""
