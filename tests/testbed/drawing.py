"""A guest of 512 bytes that draws: the screen is filled with one colour, and each key changes it.

A key of ASCII code n fills the screen with colour n mod 16 of the VGA's palette: "a" is blue,
"b" green, "d" red. Before that it goes to QEMU's debug console, where there is one.
"""

Colour = tuple[int, int, int]

GREEN: Colour = (0, 0xA8, 0)
"""What it shows before any key."""
COLOURS: dict[str, Colour] = {"a": (0, 0, 0xA8), "b": GREEN, "d": (0xA8, 0, 0)}

_CODE = bytes.fromhex(
    "b81300 cd10"  # mov ax, 13h; int 10h         320 by 200, 256 colours
    "6800a0 07"  # push 0a000h; pop es
    "b302"  # mov bl, 2
    "31ff b900fa"  # draw: xor di, di; mov cx, 64000
    "88d8 fc f3aa"  # mov al, bl; cld; rep stosb
    "31c0 cd16"  # xor ax, ax; int 16h            wait for a key
    "e6e9"  # out 0e9h, al
    "240f 88c3"  # and al, 15; mov bl, al
    "ebea"  # jmp draw
)
BOOT_SECTOR = _CODE.ljust(510, b"\0") + b"\x55\xaa"
