"""What is SHOWN, in sub-packages: wording, charts, text, formats, exports, page. Each may import those before it."""
