// What the parts of the emulated driver share.
#pragma once

// Counts a matrix product; returns whether to compute it.
bool emulated_product();
