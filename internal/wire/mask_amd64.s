#include "textflag.h"

// func maskBlocks(p *byte, n int, w uint64) (notASCII bool)
TEXT ·maskBlocks(SB), NOSPLIT, $0-25
	MOVQ p+0(FP), DI
	MOVQ n+8(FP), CX
	VPBROADCASTQ w+16(FP), Y0
	VPXOR Y5, Y5, Y5 // all bits of the results

block:
	VPXOR   (DI), Y0, Y1
	VPXOR   32(DI), Y0, Y2
	VPXOR   64(DI), Y0, Y3
	VPXOR   96(DI), Y0, Y4
	VMOVDQU Y1, (DI)
	VMOVDQU Y2, 32(DI)
	VMOVDQU Y3, 64(DI)
	VMOVDQU Y4, 96(DI)
	VPOR    Y1, Y2, Y2
	VPOR    Y3, Y4, Y4
	VPOR    Y2, Y5, Y5
	VPOR    Y4, Y5, Y5
	ADDQ    $128, DI
	SUBQ    $128, CX
	JNZ     block

	VPMOVMSKB Y5, AX
	VZEROUPPER
	TESTL AX, AX
	SETNE notASCII+24(FP)
	RET
