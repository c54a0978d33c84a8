// Numbers of docs/numerics.md that every kernel shares.
#pragma once

namespace potluck {

// exp
constexpr float kExpLow = -87.0f;
constexpr float kExpHigh = 88.0f;
constexpr float kLog2e = 1.44269504f;
constexpr float kLn2High = 0.693359375f;
constexpr float kLn2Low = -2.12194440e-4f;
constexpr float kExp2 = 0.5f;
constexpr float kExp3 = 0.166665763f;
constexpr float kExp4 = 0.0416665561f;
constexpr float kExp5 = 0.00836320315f;
constexpr float kExp6 = 0.00139262131f;

// GELU: twice sqrt(2 / pi), and that times 0.044715
constexpr float kGelu1 = 1.59576912f;
constexpr float kGelu3 = 0.0713548163f;

// Groups whose largest magnitude is under this quantize to zeros (2^-100: 127 / amax stays finite).
constexpr float kQuantizeLeast = 7.88860905e-31f;

// Where the key or value of largest magnitude may come to lie, in steps of its scale, before the scale is fitted to the steps:
// the candidate with the least squared error is taken. For 4 bits, and for 8, where the scale is not fitted.
constexpr int kKvCandidates = 3;
constexpr float kKvTargets4[kKvCandidates] = {8.0f, 7.0f, 9.0f};
constexpr float kKvTarget8 = 128.0f;
// A key or value of this magnitude has no finite scale.
constexpr float kKvMost = 450000.0f;

}  // namespace potluck
