"""Prefix files and the store that keeps them.

    format, validate      one file: its bytes, its rules, whether it fits a model
    convert/              other formats to native files, and back to PEFT's
    store                 tasks and versions; the way in for a server
    blobs                 files by digest; the way in for an engine, which knows no tasks

Imports no server code and no torch.
"""
