# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which chip stands behind a device id of NVIDIA's. Private to the collection.

Written by tests/tools/pci_ids, never by hand. From pci.ids of 2026.10.24 and earlier ones (GPL-2.0-or-later
or BSD-3-Clause) and the tables of NVIDIA's open kernel modules. A block stands also for cards that no list names yet.
"""

from __future__ import annotations

DATABASE = "2026.10.24"

# First id, last id, chip.
BLOCKS = (
    (0x0FC0, 0x0FFF, "GK107"),
    (0x1000, 0x103F, "GK110"),
    (0x1180, 0x11BF, "GK104"),
    (0x11C0, 0x11FF, "GK106"),
    (0x1280, 0x12BF, "GK208"),
    (0x1300, 0x133F, "GK110"),
    (0x1340, 0x137F, "GM108"),
    (0x1380, 0x13BF, "GM107"),
    (0x13C0, 0x13FF, "GM204"),
    (0x1400, 0x143F, "GM206"),
    (0x15C0, 0x15FF, "GP100"),
    (0x1600, 0x167F, "GM204"),
    (0x1700, 0x173F, "GP100"),
    (0x1740, 0x177F, "GM108"),
    (0x1780, 0x17BF, "GM107"),
    (0x17C0, 0x17FF, "GM200"),
    (0x1B00, 0x1B7F, "GP102"),
    (0x1B80, 0x1BFF, "GP104"),
    (0x1C00, 0x1C7F, "GP106"),
    (0x1C80, 0x1CFF, "GP107"),
    (0x1D00, 0x1D7F, "GP108"),
    (0x1D80, 0x1DFF, "GV100"),
    (0x1E00, 0x1E7F, "TU102"),
    (0x1E80, 0x1EFF, "TU104"),
    (0x1F00, 0x1F7F, "TU106"),
    (0x1F80, 0x1FFF, "TU117"),
    (0x2080, 0x20FF, "GA100"),
    (0x2180, 0x21FF, "TU116"),
    (0x2200, 0x223F, "GA102"),
    (0x2300, 0x23FF, "GH100"),
    (0x2400, 0x247F, "GA103"),
    (0x2480, 0x24FF, "GA104"),
    (0x2500, 0x257F, "GA106"),
    (0x2580, 0x25FF, "GA107"),
    (0x2680, 0x26FF, "AD102"),
    (0x2700, 0x277F, "AD103"),
    (0x2780, 0x27FF, "AD104"),
    (0x2800, 0x287F, "AD106"),
    (0x2880, 0x28FF, "AD107"),
    (0x2900, 0x297F, "GB100"),
    (0x2980, 0x29FF, "GB102"),
    (0x2B00, 0x2B3F, "GB10B"),
    (0x2B80, 0x2BBF, "GB202"),
    (0x2C00, 0x2C7F, "GB203"),
    (0x2D00, 0x2D7F, "GB206"),
    (0x2D80, 0x2DFF, "GB207"),
    (0x2E00, 0x2E3F, "GB20B"),
    (0x2F00, 0x2F7F, "GB205"),
    (0x3000, 0x307F, "GR100"),
    (0x3080, 0x30FF, "GR102"),
    (0x3180, 0x31FF, "GB110"),
    (0x3200, 0x323F, "GB112"),
    (0x3340, 0x337F, "GB120"),
    (0x3400, 0x343F, "GB10B"),
)

# Ids that stand in the block of another chip.
EXCEPTIONS = {
    0x102D: "GK210",
    0x13AD: "GM204",
    0x13AE: "GM204",
    0x13BE: "GM204",
    0x13BF: "GM204",
}
