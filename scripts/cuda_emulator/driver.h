// What the parts of the emulated driver share.
#pragma once
#include <string>

// Counts a matrix product; returns whether to compute it.
bool emulated_product();

// Loads the kernels of a shared library as a module. Returns the image that stands for it, or nothing, with the reason on standard error.
std::string add_module(const char *path);
