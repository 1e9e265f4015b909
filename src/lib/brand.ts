/** A type that structurally is `T` but cannot be mixed up with another `T`. */
export type Brand<T, Tag extends string> = T & { readonly __brand: Tag };
