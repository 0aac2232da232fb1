"""Tests of recipe scripts."""
