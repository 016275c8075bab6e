"""Three looks: dark, light, and high contrast. None tells anything by colour alone."""

from textual.theme import Theme

DARK = Theme(
    name="dark",
    primary="#5ea1ff",
    secondary="#8bb8f0",
    accent="#ffb454",
    foreground="#d7dde5",
    background="#101418",
    surface="#151a20",
    panel="#1f2731",
    success="#7bd88f",
    warning="#ffcc66",
    error="#ff6b6b",
    dark=True,
)
LIGHT = Theme(
    name="light",
    primary="#0b5cad",
    secondary="#33689b",
    accent="#9a5b00",
    foreground="#1b222a",
    background="#f3f5f7",
    surface="#ffffff",
    panel="#dfe5ec",
    success="#12702b",
    warning="#8a5a00",
    error="#b3161b",
    dark=False,
)
CONTRAST = Theme(
    name="contrast",
    primary="#ffff00",
    secondary="#00ffff",
    accent="#00ffff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#000000",
    success="#00ff00",
    warning="#ffff00",
    error="#ff8080",
    dark=True,
    variables={"block-cursor-background": "#ffffff", "block-cursor-foreground": "#000000"},
)
THEMES = (DARK, LIGHT, CONTRAST)
