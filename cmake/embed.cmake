# cmake -DSPV=in.spv -DWORDS=out.inc -P embed.cmake: the words of a SPIR-V module as C numbers, little endian.
file(READ ${SPV} hex HEX)
string(REGEX REPLACE "(..)(..)(..)(..)" "0x\\4\\3\\2\\1,\n" words "${hex}")
file(WRITE ${WORDS} "${words}")
