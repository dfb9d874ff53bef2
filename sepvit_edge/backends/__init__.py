"""The runtimes, one file each.

Everything that knows a runtime is in its file, and its library is imported there only. `interface`
says what such a file offers, `registry` lists them, `versions` checks what is installed, and
`support` holds what several of them share.
"""
