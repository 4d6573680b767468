"""Names that would break out of a page or a figure which took them for markup."""

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><script>alert(2)</script>",
    "\u202egnp.exe\u202c",
    "W" * 300,
    "{{ 7 * 7 }}{% raw %}",
    "مرحبا بالعالم",
    "&lt;b&gt; 'quoted' `tick`",
]
