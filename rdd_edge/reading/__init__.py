"""The only ways in for files from outside: documents, tensors, archives, pickles, images and tables, each with limits.

Every function here bounds what a file declares before it allocates for it, and raises one of rdd_edge.errors for a file
that is broken or foreign. Other modules read with these functions only: tests/reading/test_only_ways_in.py.
"""
