"""Human motion made by the package itself: an articulated skeleton, parametrised actions, a camera rig."""
