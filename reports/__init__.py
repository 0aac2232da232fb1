"""What is SHOWN, in rooms: wording, charts, text, formats, page. Each may import those before it."""
